from nvflare.collab import collab


class Server:
    @collab.main
    def run(self):
        return None


class Client:
    @collab.publish
    def train(self):
        return None
