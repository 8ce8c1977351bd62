"""Programs started where Linux answers io_uring_setup with an error, as containers' system call filters do."""
import ctypes
import os
import struct
import threading

IO_URING_SETUP = 425
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RETURN_ERRNO, RETURN_ALLOW = 0x00050000, 0x7FFF0000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # of the BPF that seccomp knows


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def filter_this_thread(error):
    """For ever, and for all that the thread starts."""
    code = b"".join(struct.pack("<HBBI", *line) for line in (
        (LOAD_WORD, 0, 0, 0),  # the system call's number
        (JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP),
        (RETURN, 0, 0, RETURN_ERRNO | error),
        (RETURN, 0, 0, RETURN_ALLOW)))
    library = ctypes.CDLL(None, use_errno=True)
    program = Program(len(code) // 8, code)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or \
            library.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp: " + os.strerror(ctypes.get_errno()))


def call(error, function):
    """The function's result, from a thread whose programs get this error. Whatever they were started for outlives the thread."""
    result = []

    def body():
        try:
            filter_this_thread(error)
            result.append((function(), None))
        except BaseException as failure:  # the caller's, with its traceback
            result.append((None, failure))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    value, failure = result[0]
    if failure is not None:
        raise failure
    return value
