"""Protocol bindings: parallel folders that never import each other."""
