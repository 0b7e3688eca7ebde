// The echo on Go's net/http. Usage: go_echo PORT
package main

import (
	"log"
	"net/http"
	"os"
)

func echo(writer http.ResponseWriter, request *http.Request) {
	name := request.URL.Query().Get("name")
	if name == "" {
		name = "Nomad"
	}
	writer.Header().Set("Content-Type", "text/plain; charset=utf-8")
	writer.Write([]byte("Hi, " + name + "!"))
}

func main() {
	http.HandleFunc("/echo", echo)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
