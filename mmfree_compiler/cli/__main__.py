"""`python -m mmfree_compiler.cli` is `mmfree`."""

from mmfree_compiler.cli import main

main()
