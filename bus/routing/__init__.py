"""What the broker decides, without sockets and clocks.

`router` is the front: the shell feeds it and carries out what it finds there. `sessions` knows who is
there and what waits for them. The parts answer the commands of their subject: `publishing` with `groups`,
`requests`, `presence`, `system`, and what the shell adds (`watching`, `enrolment`, `durable`).
"""
