"""Nuggets: the facts that a good answer to a query must say, found in its relevant passages, and looked for in texts.

    records.py  the two files: nugget lists, and texts with what they say of the nuggets
    create.py   nuggets from passages, window by window; which are vital
    assign.py   whether a text supports each nugget
    scores.py   what that makes of a text, of a system

Pradeep et al., "Initial Nugget Evaluation Results for the TREC 2024 RAG Track with the AutoNuggetizer Framework"
(2024, arXiv 2411.09607), and "The Great Nugget Recall" (2025, arXiv 2504.15068). The prompts are our own, in
`../rubrics/nuggets.yaml`; the answers of the engine are journalled by `../asking.py`.
"""
