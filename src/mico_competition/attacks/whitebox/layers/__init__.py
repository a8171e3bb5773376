"""White-box decoding of any model's layers: convolutions, transformers, embeddings, heads.

`whitebox.mlp` is faster, but for MLPs only.
"""
