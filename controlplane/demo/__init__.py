# The demo: the whole story on a live server, with real handwritten digits.
