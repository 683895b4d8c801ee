"""What is asked: hparams, model, corpus, their snapshot on disk, and the challenge drawn from it."""
