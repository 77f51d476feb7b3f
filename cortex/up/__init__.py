"""`cortex up`: the whole system on this machine, supervised by one small process.

`system.run(Options(...))` is all there is to call. It claims the data directory (`data_dir`), takes the ports
(`ports`), plans the parts (`plan`) and hands them to the `Supervisor`, which starts, watches, restarts and ends them:

    cortex up -- gateway         HTTP; inherits the listening socket, which therefore outlives it
              |- scheduler       gRPC; its port is kept reserved; it starts the dequeuers, they the containers
              '- collector       spans

What must hold, whatever happens: nothing outlives `cortex up`. Three things see to it. A *lifeline*: a pipe whose only
write end is here and whose end of file tells every process to exit, also after kill -9. A *subreaper* flag: whoever
loses its parent becomes a child of this process. And at the end every descendant is ended by its pid.
"""
