"""The image: how it is built (`build`), and its entry, `docker run validator ...` (`entry`)."""
