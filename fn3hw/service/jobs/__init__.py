"""Jobs: verbs that were asked for over HTTP, each done by one worker, whatever happens to that worker meanwhile.

`work` is what all kinds of jobs have, `kinds` what each takes, which verb it becomes and which rows it ends in; `desk`
takes requests and keeps the rows of jobs; `flow` hands them to workers, one measurement at a time on each device;
`workshop` does one, in a folder of its own, as a `child` process. A job is known by what it is asked for: the same work
is found again instead of done again.
"""
