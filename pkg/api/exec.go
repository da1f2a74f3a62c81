package api

// A command in a task's container (exec) is three calls. The controller hands
// them on to the agent of the task's host, which answers the same paths
// without the version prefix.
//
//  1. POST /v1/tasks/{task}/exec with an [ExecRequest] as JSON and the headers
//     "Connection: Upgrade" and "Upgrade: tcp". The answer is 101 Switching
//     Protocols with the exec's id in [ExecHeader]; anything else is an
//     [Error]. From then on the connection carries the command's standard
//     input one way, as it is, and its output the other way: as it is with a
//     terminal, in the engine's multiplexed form (stdcopy) without. Closing
//     the sending half ends standard input. The answer ends when the command
//     does.
//  2. GET /v1/tasks/{task}/exec/{id} → [ExecState]. Its exit code counts once
//     Running is false, which holds when the stream of the first call has
//     ended by itself.
//  3. POST /v1/tasks/{task}/exec/{id}/resize?h=ROWS&w=COLUMNS tells a terminal
//     its size.
//
// A connection that breaks takes the command's standard input away; the
// command itself goes on, as with docker exec.
