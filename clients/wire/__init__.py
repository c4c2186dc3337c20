"""How calls travel: gRPC and HTTP, each in threads and in asyncio, and images through shared memory."""
