"""`make scale`: what many of everything cost, from 1 to 10 000, and whether it grows too fast.

`roles` are the child processes, of which `runs` makes figures, round by round. A `record` of those
gives `series`; `promise` says how much more each may cost, `exceptions` what is known to cost too
much, and why, and `judgement` is what comes of both. `page` is all of it in Markdown.
"""
