"""`python -m mmfree_compiler.cli` is `mmfree`, as `python -m mmfree_compiler` is."""

from mmfree_compiler.cli import main

main()
