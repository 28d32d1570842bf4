"""When to train, and the jobs that do it.

    settings.py  counting.py  policy.py  quiet.py     what counts, and when that is enough (pure)
    decisions.py                                      the policy within a commit's transaction, and on a timer
    launcher.py  subprocess_launcher.py  runner.py    one start a job, whoever dies
    kubernetes_*.py                                   the launcher of Jobs in a cluster: object, calls, status
    dispatcher.py  report.py                          outbox -> launcher -> ledger; where all that stands
    doors.py                                          the gRPC calls about training and the model registry

The tables are `triggers` and `training_runs`; `qrelay/labels/ledger/outbox.py` reads and writes them.
"""
