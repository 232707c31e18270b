"""`python -m mmfree_compiler` is `mmfree`."""

from mmfree_compiler.cli import main

main()
