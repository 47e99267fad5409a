"""Published test kit: pairs, recorders, fake clock."""
