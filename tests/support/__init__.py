"""What black-box tests share: a server process, an app that does as it is told, a client of raw bytes."""
