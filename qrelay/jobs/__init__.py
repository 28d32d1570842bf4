"""When to train, and the jobs that do it.

    counting.py  policy.py                            what counts, and when that is enough (pure)
    decisions.py                                      the policy within a commit's transaction, and on a timer
    launcher.py  subprocess_launcher.py  runner.py    one start a job, whoever dies
    kubernetes_*.py                                   the launcher of Jobs in a cluster: object, calls, status
    dispatcher.py  report.py                          outbox -> launcher -> ledger; where all that stands

Settings: `qrelay.settings.training` and `.kubernetes`, because the sink's settings contain
them. The tables are `triggers` and `training_runs`; `qrelay/labels/ledger/outbox.py` reads and writes them.
"""
