"""The online endpoint: a bundle behind HTTP."""
