"""The device library: Triton functions that generated kernels call.

All fp32 results have the bits of the references in ops/, given `enable_fp_fusion=False`. Quotients
are `tl.div_rn`: Triton's `/` is an approximation. Triton 3.6's `-x` is `0 - x`, which makes +0 of
+0, so signs change by products with -1.
"""
