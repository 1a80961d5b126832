"""Many users, many devices, one place: the verbs of the shell behind an HTTP API, pages and queues.

The server computes nothing in a way of its own. A *job* is a verb of the command line in a process of its own
(`jobs.child`), in a folder that holds its inputs (`jobs.workshop`): so it has the same options, documents, errors and
exit status as in the shell, goes on after a kill where it stopped, and cannot take the server down with it.

What there is, from the bottom up: `database` keeps rows (`models`, whose history is in `migrations`), `storage` keeps
files under the digest of their content, `tokens` says who may do what. `jobs` makes verbs of requests and rows of what
they end in; DBOS hands each job to one worker, and again to one if that was killed. `api` is HTTP, `pages` is for eyes.
Only a lookup is answered by the server itself, from an atlas in memory (`atlases`).
"""
