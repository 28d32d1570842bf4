"""What can be seen of judges without people: a diagnosis, which qualifies nothing and is written nowhere.

evidence.py     the ledger's labels and scores as columns
agreement.py    judges beside retrieval scores, and beside each other
paraphrases.py  one judge asked again, with changes that must not move a label
known.py        pairs known to be relevant, and what became of their labels
report.py       the figures in plain words, for a terminal and as a page

A figure that the data do not give is nan: "-" for people, null in JSON.
"""
