// What `inject.py` puts into a page: it hears of reloads, and reloads, swaps stylesheets, or shows what is broken.
// It leaves nothing in the document, and writes texts only, never HTML. No word of it may end a script element.
(() => {
  const tag = document.currentScript, key = "80s-follow", mark = Symbol.for(key)
  if (!tag) return
  const { state: first, form } = tag.dataset
  tag.remove()
  // A script of the page has put another page's text into this one
  if (window[mark]) return
  Object.defineProperty(window, mark, { value: true })
  let state = first, source, box, timer, pause = 1000, store, framed = false, barred = false
  // A sandbox: nothing could be heard there
  if (self.origin === "null") return
  try { store = sessionStorage } catch {}
  // A page within another of this server is reloaded with that one
  try { framed = parent !== self && parent.location.origin === location.origin } catch {}
  const recall = () => { try { return JSON.parse(store.getItem(key)) || {} } catch { return {} } }
  const note = words => { try { store.setItem(key, JSON.stringify(words)) } catch {} }

  const reload = said => {
    if (form !== undefined) return show({ style: said.style, title: "The server has changed.",
      note: "This page answers a form. Reload it yourself to send the form once more." })
    const now = Date.now(), known = recall(), times = (known.times || []).filter(time => now - time < 30000)
    // A page that changes files of its own site whenever it is shown
    if (times.length >= 20) return console.warn("80s: this page was reloaded 20 times in 30 seconds: no more for now")
    note({ ...known, times: [...times, now] })
    location.reload()
  }

  const imports = sheet => {
    try { return !sheet.href && [...sheet.cssRules].some(rule => rule instanceof CSSImportRule) } catch { return false }
  }
  const swap = said => {
    state = said.state
    const links = [...document.querySelectorAll("link[rel~=stylesheet i][href]")]
      .filter(link => new URL(link.href).origin === location.origin)
    if (!links.length || [...document.styleSheets].some(imports)) return framed || reload(said)
    for (const old of links) {
      const link = old.cloneNode(), url = new URL(old.href)
      url.searchParams.set("80s", state)
      link.href = url
      link.onload = () => old.remove()
      link.onerror = () => link.remove()
      old.after(link)
    }
  }

  const hide = () => { if (box) box.remove(); box = undefined }
  const show = said => {
    hide()
    box = document.createElement("eighties-follow")
    box.style.setProperty("all", "initial", "important")
    const root = box.attachShadow({ mode: "open" }), sheet = new CSSStyleSheet()
    sheet.replaceSync(said.style)
    root.adoptedStyleSheets = [sheet]
    const add = (to, name, text, kind) => {
      const made = document.createElement(name)
      if (text) made.textContent = text
      if (kind) made.className = kind
      return to.appendChild(made)
    }
    const over = add(root, "div", "", "over"), main = add(over, "main")
    over.setAttribute("role", "alertdialog")
    over.setAttribute("aria-label", said.title)
    over.tabIndex = -1
    add(add(main, "header"), "p", said.title, "soft")
    for (const failure of said.failures || []) {
      add(main, "h1", failure.message)
      if (failure.place) add(add(main, "p", "", "place"), "code", failure.place)
      if (failure.traceback) add(add(main, "pre"), "code", failure.traceback)
      add(main, "p", `In worker ${failure.workers.join(", ")}.`, "soft")
    }
    if (said.note) add(main, "p", said.note)
    const button = add(main, "button", "Close")
    button.type = "button"
    button.onclick = hide
    over.onkeydown = event => { if (event.key === "Escape") hide() }
    document.documentElement.append(box)
    over.focus()
  }

  const hear = said => {
    if (said.failures) {
      if (!framed) show({ ...said, title: "The program cannot be loaded. The one before it serves on." })
      return
    }
    if (said.what === "style" && !box) return swap(said)
    if (framed) return
    if (said.what !== "hello" || box) return reload(said)
    // Once for each state: workers that differ must not send it to and fro
    const known = recall()
    if (said.state === state || known.state === said.state || !store) return
    note({ ...known, state: said.state })
    reload(said)
  }

  // Browsers open six connections to a server and no more: only pages that are seen listen, and tell the others
  const channel = new BroadcastChannel(key)
  channel.onmessage = event => { if (!source) hear(event.data) }
  const stop = () => {
    clearTimeout(timer)
    if (source) source.close()
    source = undefined
  }
  const listen = () => {
    if (framed || barred || source || document.visibilityState === "hidden") return
    clearTimeout(timer)
    source = new EventSource(location.origin + "/.80s/follow")
    source.onmessage = event => {
      const said = JSON.parse(event.data)
      pause = 1000
      if (said.what !== "hello") channel.postMessage(said)
      hear(said)
    }
    source.onerror = () => {
      // It comes back by itself unless it was refused
      if (source.readyState !== EventSource.CLOSED) return
      stop()
      timer = setTimeout(listen, pause)
      pause = Math.min(pause * 2, 60000)
    }
  }
  // By a policy in the document itself
  document.addEventListener("securitypolicyviolation", event => {
    if (event.blockedURI === location.origin + "/.80s/follow" && event.disposition === "enforce") barred = true, stop()
  })
  document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" ? stop() : listen())
  addEventListener("pagehide", stop)
  addEventListener("pageshow", listen)
  listen()
})()
