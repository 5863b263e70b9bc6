"""Recordings of event cameras: `stbp.data.read_events` and `write_events`, and a module for each format.

| format | module | tested on real files |
|---|---|---|
| N-MNIST, N-Caltech101 `.bin`, read and written | `nmnist` | yes: 1,101 of N-MNIST |
| AEDAT 2.0 of a DVS128 (CIFAR10-DVS) | `aedat2` | no |
| AEDAT 3.1 | `aedat3` | no |
| Spiking Heidelberg Digits, Speech Commands (HDF5) | `shd`, with h5py | no |
| EVT 2 and 3, DAT; AEDAT 4 | `faery`, with the library of that name; `faery_process` | yes: one of each |

`stbp train folder` trains on folders of any of them (`stbp.data.folder`). It mends as `read_events` does, and skips a
recording that cannot be read.

What is wrong with a file, and what comes of it. "Strict" is a decoder that is given no `repairs`, as for data sets,
whose files are whole or were not copied well; `read_events` mends what needs no guess, and logs the count.

| fault | strict | `read_events`, `stbp data info` |
|---|---|---|
| last event cut off | DataError: file, byte | dropped, counted (EVT, DAT: dropped by faery, not counted) |
| coordinates off the sensor | DataError: file, byte, how many | the same: the bytes are not what they should be |
| event late by at most 1 ms | DataError: file, byte | sorted in, counted |
| time that runs further back | DataError: file, byte | the same: a clock was set back, the rest cannot be placed |
| no events | no events | no events; a file of no bytes that is not called `.bin` is a DataError |
| sync events, events not valid, other packets | left out | left out, counted |
| zip member damaged, encrypted, or over 256 MB | DataError: archive, byte, member | the same |
| zip member that climbs out of the folder, or a link | DataError, nothing of the archive is read | the same |

EVT, DAT and AEDAT 4 are decoded by faery: errors there name the file, and the event instead of the byte. Late times are
faery's own affair in two of them: in a DAT file they are raised to the latest before them, in an EVT file time that
runs backwards is an overflow of the clock; neither is reported. The decoders of N-MNIST, AEDAT 2.0 and 3.1 allocate for
the bytes that are there and never for a number in a header; faery and HDF5 unpack whole packets and chunks.
"""
