"""Scripts that attack the project: random modules and mutated inputs, seeded.

    PYTHONPATH=tests python -m fuzz.modules --count 2000 --workers 2
    PYTHONPATH=tests python -m fuzz.mutations --count 20000 --workers 2
    PYTHONPATH=tests python -m fuzz.onnx_models --count 5000 --workers 2
    PYTHONPATH=tests python -m fuzz.interrupts 50

Each prints every fault with what repeats it, and a table of all outcomes; it exits with 1 if there
was a fault. `--case` judges a single case again.
"""
