"""The attack corpus, a module for every layer that it attacks; `make.py` beside this folder writes it."""
