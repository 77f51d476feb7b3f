"""How answers look to people, in a terminal of any width, in a file, and without colour."""
