"""The families of models that read events: one file a family, and the interface they share.

``model_type`` in the ``config.json`` of a base model chooses the family. No other module knows the
name or the layout of a family. A worked example of a new one: docs/backbones.md.
"""
