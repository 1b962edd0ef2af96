"""Models and event stores in the formats of other projects.

- ``convert``: writes an event store for EasyTPP or Hugging Face datasets (``mmtpp convert``)
- ``gguf_import``, ``gguf_tokenizer``: write the model of a GGUF file as a folder (``mmtpp import``)
"""
