#!/usr/bin/env bash
# Rebuild the shipped supernets from the npz tasks in DATA:  benchmarks/rebuild_zoo.sh DATA
# About 40 minutes on one core.
set -euo pipefail
data=$(cd "${1:?usage: benchmarks/rebuild_zoo.sh DATA}" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
config=$(mktemp --suffix=.yml)
trap 'rm -f "$config"' EXIT
sed "s#path: #path: $data/#" "$root/benchmarks/pretrain_shipped.yml" > "$config"
nni-warmstart pretrain --config "$config" --name joint-nasbench201-w16 --zoo "$root/nni_warmstart/zoo_data"
