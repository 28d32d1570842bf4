"""The gate: whether a trained version is better than what serves, and worse at nothing that is guarded.

rules.py      what is demanded, as settings
decide.py     the decision from per-query values, with a row for every rule (pure)
facts.py      what needs no model: who judged the set, whether its queries were trained on
baseline.py   what serves now, and evaluations that are kept
gate.py       all of it for one version of a registry, recorded there
table.py      the decision as people read it

decision = gate(Registry(folder), "bi-encoder-1a2b3c4d5e", rules, configured)
decision.passed, decision.why
"""
