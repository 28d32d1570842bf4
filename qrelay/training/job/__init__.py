"""The training job: labels in; a version that serves, or a reason why not, out. Run again, it resumes.

    job.py     what to do: job.json, as the sink's launcher (or `qrelay rounds`) writes it
    data.py    export -> training and dev queries, without those of the gate's sets
    slots.py   train -> publish -> gate -> promote, for one slot
    run.py     all of it;  result.py: what came of it

Everything lies in <data_dir>/training/<job>/, and every step is done when its output is there:

    <format>.jsonl (+ manifest)               exported from the ledger, once
    data/<format>/{train,dev}.jsonl, summary.json
    <slot>/model/, checkpoints/               trained (qrelay.training.train)
    <slot>/result.json   result.json          published, gated, promoted
"""
