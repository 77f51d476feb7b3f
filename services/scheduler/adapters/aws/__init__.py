"""What talks to AWS, or to what speaks its protocols. Only here aioboto3 is imported, and late: it takes a second."""
