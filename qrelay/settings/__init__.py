"""Where an installation's settings come from, and which are in force.

Sources; later ones win:

1. the defaults of the settings classes (`qrelay.config` and each service's);
2. `<data_dir>/tuned.yaml`: what measuring this machine chose (`settings:`, sections as in qrelay.yaml);
3. `<data_dir>/settings.yaml`: the installation's record, what the last `qrelay up` was given;
4. the settings file: `--config`, else QRELAY_CONFIG, else `./qrelay.yaml`;
5. the environment (QRELAY_JUDGE__MODEL, …).

Beside a record, a `./qrelay.yaml` that was merely found is not in force: services run with the record, and so does
every command. A file or a variable that was named wins, over what the record holds of the same keys alone, so
that nothing which the record sets (a qualification, a budget) goes missing with it. `qrelay up` takes the file as it
is, without the record beneath it, and records it anew.
"""

from qrelay.settings.effective import Effective, alone, find
from qrelay.settings.load import load_settings

__all__ = ["Effective", "alone", "find", "load_settings"]
