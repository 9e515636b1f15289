"""One command a file; jobs never import each other."""
