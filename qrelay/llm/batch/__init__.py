"""`openai-batch`: the questions of the backend `openai`, asked in batches of OpenAI's Batch API, for half the price.

A request is asked by a client that cannot wait for its answer: `BatchConnection` looks it up in the store, by the
hash of endpoint, path and body. Where the answer is there, it is read by the code that reads an endpoint's own
(`Connection.understood`, `llm/openai.py`, `llm/replies.py`). Else the request is written down and AnswersPending says
when to ask again. So every strategy works, those that ask several times too, and a process may die at any moment: it
asks the same again and finds it pending or answered. `BatchDriver` takes requests to the endpoint and brings answers
back. The store is the judgment cache's database (`qrelay/judging/batches/store.py`).

A request, by its key:

    waiting ──plan──► sent ──line of the output or error file──► answered   (for good)
       ▲               │ └──batch cancelled, or failed `max_tries` times──► failed (until `retry_failed_s` are over)
       └──no answer────┘

A batch, by its name, which is made before anything is sent. Each arrow is one transaction, committed before the next
step begins; what the endpoint is told stands below it:

    planned ─────► uploaded ─────► creating ─────► running ─────► ended
           POST /files     (nothing)       POST /batches   GET /batches/{id}, then /files/{id}/content
           filename: name                  metadata: name  answers, then the rest of the requests, then this state

    planned    batch and requests are tied: no other batch takes them. Killed: the file is looked for by its name, and
               uploaded where it is not there; a file twice costs nothing.
    uploaded   the file's id is known. Killed: goes on.
    creating   written before the request that costs money. Killed, or no answer: the endpoint's batches are listed.
               One with this name or file is ours: running. None: created again, but only after `look_again_s`, as
               a list may lag. A refusal (4xx) is an answer: none was created, so the batch ends and its requests
               wait.
    running    the batch's id is known. Killed: goes on. Gone (404, and not in the list): ended, failed.
    ended      all that the files hold is answered, by key: lines out of order, twice, or of unknown ids do no harm.
               Killed before: the files are read again, answers that are there stay. Input and output files are
               deleted only after this.

One process drives the batches of an account at a time, by a lock that the system, or PostgreSQL, takes from a process
that dies; the others write requests down and read answers. It takes a moment until a lock is free; `creating` is why
even then nothing is created twice.

Labels share their identity with those of the backend `openai` at the same URL: the request is the same JSON, the
model is the same, and the reply is read by the same code. How long an answer took is no part of what was measured.
"""
