// Search when the site is opened from a folder. Browsers start no Worker from file://, so this class
// runs the worker's script in a hidden frame. Only the calls of Material for MkDocs are supported.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inner = this.frame.contentWindow
      window.addEventListener("message", (event) => {
        if (event.source !== inner) return
        const message = new MessageEvent("message", { data: event.data })
        this.dispatchEvent(message)
        if (this.onmessage) this.onmessage(message)
      })
      const load = (source) =>
        new Promise((resolve) => {
          const script = inner.document.createElement("script")
          script.src = source
          script.onload = resolve
          inner.document.body.append(script)
        })
      inner.document.open()
      inner.document.write(
        "<body><script>postMessage = (data) => parent.postMessage(data, '*')</" + "script></body>"
      )
      inner.document.close()
      inner.importScripts = (...sources) =>
        sources.reduce((before, source) => before.then(() => load(source)), Promise.resolve())
      this.ready = load(url)
    }
    postMessage(data) {
      this.ready.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      )
    }
    terminate() {
      this.frame.remove()
    }
  }
}
