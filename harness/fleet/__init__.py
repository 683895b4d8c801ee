"""Judges on many machines, on Ray: the only room that knows it. `pip install trainjudge[fleet]`.

A *node* is a machine that `validator fleet join` has made part of a Ray cluster; it offers what it has
(`offer`) and judges what it is asked to (`node`). The *dispatcher* takes evaluations from the store and has
them judged on nodes (`dispatch`, `remote`), with the same worker that judges on one machine. Ray knows who
lives, carries bytes, and keeps tasks apart (`cluster`); nodes see neither the store nor a key of it.
"""
