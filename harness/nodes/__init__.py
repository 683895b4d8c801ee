"""One evaluation on several machines: an agent on each, and the judge's end of them. docs/multi-node.md."""
