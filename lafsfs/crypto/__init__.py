"""Everything that hashes, encrypts, signs or encodes, and nothing else.

Theory. Tahoe's security rests on a few primitives used in one fixed way each: SHA-256 twice behind
a tag, AES in counter mode from zero, RSA-PSS over SHA-256, Merkle trees, and a systematic erasure
code. This layer gives each of them a name out of Tahoe's own vocabulary, so that the layers above
say ``block_hash`` or ``ssk_readkey`` and never a tag, a mode or a padding.

Rules:

- Pure: no I/O, no Trio, and no state between calls but memoised constants: objects are values, or
  have one owner who fills them. Randomness comes from the operating system, and only where a key or
  a certificate is made.
- All calls block. Whoever hashes, encrypts or encodes a segment, or makes a key, does it in a
  worker thread; the libraries release the interpreter's lock meanwhile.
- Foreign bytes that are not well formed raise :class:`~lafsfs.errors.FormatError`; well-formed
  bytes that do not match their hash, tag or signature raise
  :class:`~lafsfs.errors.HashMismatchError`. An argument of the wrong length from our own code is a
  bug and raises :class:`ValueError`.
- No message and no ``repr`` shows a key, a secret or the text of a capability.
- The libraries stay inside: ``Crypto``, ``cryptography`` and ``zfec`` are imported here alone, and
  none of their objects leave.
"""
