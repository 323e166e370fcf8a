"""Tuner of warmstart.yml: one trial for every start, in their order, which may end at the accuracy of the one before."""

from __future__ import annotations

from typing import Any

from nni import NoMoreTrialError
from nni.tuner import Tuner
from nni.utils import extract_scalar_reward


class OneAfterTheOther(Tuner):
    """Gives each start of the search space its values, and as ``evaluator.stop_at`` the accuracy of the start before."""

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        self.starts = {start['_name']: start for start in search_space['start']['_value']}
        self.accuracies: dict[str, float] = {}

    def generate_parameters(self, *_: Any, **__: Any) -> dict[str, Any]:
        name = next((name for name in self.starts if name not in self.accuracies), None)
        if name is None:
            raise NoMoreTrialError('each start has had its trial')
        values = {key: spec['_value'][0] for key, spec in self.starts[name].items() if key != '_name'}
        if 'evaluator.stop_at' in values:
            values['evaluator.stop_at'] = list(self.accuracies.values())[-1]
        return {'start': {'_name': name, **values}}

    def receive_trial_result(self, _: Any, parameters: dict[str, Any], value: Any, **__: Any) -> None:
        self.accuracies[parameters['start']['_name']] = extract_scalar_reward(value)

    def import_data(self, data: list[dict[str, Any]]) -> None:  # after `nnictl resume`
        for each in data:
            self.receive_trial_result(None, each['parameter'], each['value'])
