"""How calls travel: gRPC and HTTP, each in threads and in asyncio, images through shared memory; and when again."""
