#!/usr/bin/env bash
# Rebuild the shipped supernets from the npz tasks in DATA:  benchmarks/rebuild_zoo.sh DATA
# About 20 minutes on one core.
set -euo pipefail
data=$(cd "${1:?usage: benchmarks/rebuild_zoo.sh DATA}" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed "s#path: #path: $data/#" "$root/benchmarks/pretrain_shipped.yml" > "$folder/pretrain_shipped.yml"
nni-warmstart pretrain --config "$folder/pretrain_shipped.yml" --name joint-nasbench201-w8 --zoo "$root/nni_warmstart/zoo_data"
