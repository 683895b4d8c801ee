"""What every level of isolation has to hold, whoever made it.

SYNOPSIS
    pytest tests/conformance                            every level that works here
    pytest tests/conformance --level bubblewrap         this one; an error where it does not work
    pytest tests/conformance --level NAME -m "not slow" without the longest ones

    A level is judged by the promises of its row in `promises.py`, which says the same as the table of
    docs/sandbox.md. A level without a row promises everything: begin without one, and take out what the
    level is not meant to keep. Every property below is one test. Several of them look at one launch of
    one program, so a level that breaks early fails all of these with the log of that launch.

    Run it as root and as an ordinary user: a judge that is root gives sandboxes users of their own.
    tests/sandbox/test_reruns.py does so with the levels of this project.

ALL LEVELS, `none` too
    Honest work
        The program reads and writes the paths of its job where they are outside, and writes temporary
        files, locks, and programs that it then runs; it has the judge's cores; torchrun's ranks connect.
        A train file is judged, and its result names the level.
    Nothing of the judge
        The environment is made from nothing, the job's own variables win; no descriptor is inherited;
        standard input is empty. What is printed cannot steer a terminal.
    Limits
        Memory (private, shared, files without a name; of a child too), tasks, the outbox (bytes, apparent
        size, depth), the temporary folders, a single file, open files, core dumps. Who stays within
        them is let alone: pages that processes share count once, links are not followed. A flood of
        output neither blocks the program nor fills the log. Over a limit, the ending gives the reason
        in words. If the machine runs out of memory, the sandbox is the first to go.
    The end
        Nothing is left by the time an ending is told: not when the judge says stop, not when the command
        exits by itself, when the judge breaks off, or is killed; whatever was forked, hidden or deaf.
        The private temporary folder is removed, however deep. An ending is told once, with the
        command's status or signal, and does not change. While the program runs there is none.
    Our own failures
        A path that is missing is the judge's mistake and never an ending.

PROMISES, for the levels that make them
    PRIVILEGES  no capability, none to be gained; not root; the listed system calls are refused.
    USER        a judge that is root gives every sandbox a real user id that nothing else has.
    TIDY        nothing stays in folders that everybody may write to; folders are taken back from the user.
    TASKS       the kernel limits tasks, so that a fork bomb does not outrun the judge.
    FILES       files that the job does not name cannot be seen; the system's cannot be written.
    BARE        what is visible is the system's programs and libraries: no accounts, homes, settings.
    NETWORK     loopback works, and there is nothing else.
    NAMESPACES  processes, mounts, IPC, host name and control groups are its own.
    TEMPORARY   /tmp and /dev/shm are its own, of the size that the job allows.
    ESCAPES     no attempt of `validator doctor --probe` gets out but through a known gap, nor does one
                that a train file makes in a real evaluation.
"""
