"""The kinds of models that an evaluation knows, behind one interface."""
