"""The compiling half: TVM TIR, LLVM, a linker."""
