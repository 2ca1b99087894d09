"""Precision: fp16 by conversion, int8 as Q/DQ, and what stays in fp32."""
