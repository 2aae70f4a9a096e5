"""Fuzzing of everything that reads what others made: `python -m tests.fuzz`.

A target takes bytes, and accepts them or refuses them with an error of edgecnn's family. Everything else is a fault:
another exception, a crash, more than 10 s, more than 1 GB. Inputs come in two ways: by mutation of real files (`seeds`,
written by `make_seeds`), with a seeded generator, and by atheris, which keeps what reaches new code.
"""
