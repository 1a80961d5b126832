"""HTTP under ``/v1``: one file a resource, one error body, one way of paging, the same words as the shell.

`app` puts the routes together; `shared` is what they have in common: who asks, what a page is, what an error looks
like. Routes say what they need (`needs`) in their signature, so that the OpenAPI document says it, too.
"""
