"""The recipe of the result on MedQuAD: see `__main__.py`."""
