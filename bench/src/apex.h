/* APEX users of the rig (kind=apex): RFC 3080, 3081 and 3340, just enough of an application that is attached as an endpoint.
 * Included by imload.c after the XMPP users, whose connections and base64 it shares.
 *
 * Channel 0 manages, channel 1 signs in (PLAIN, or SCRAM-SHA-1), channel 3 is APEX, with the attach riding on its start.
 * Frames of ours are whole messages: they are smaller than the first window, and wait while it is full. */

enum { APEX_WINDOW=65536, APEX_MGMT=0, APEX_SASL=1, APEX_DATA=3, APEX_CHANNELS=4 };
#define BEEP_XML "Content-Type: application/beep+xml\r\n\r\n"
struct Apex {
  u32 sent[APEX_CHANNELS],limit[APEX_CHANNELS];   /* octets of payload sent, and up to where they may go */
  u32 got[APEX_CHANNELS],told[APEX_CHANNELS];     /* octets received, and those the window was opened for last */
  u32 msgno[APEX_CHANNELS];
  Buf payload;                                    /* of a message that comes in several frames */
  Buf queue; size_t queued;                       /* messages that wait for the window: length, octets, length ... */
};

static void apex_frame(Conn*c,const char*type,int ch,u32 no,const char*payload,size_t n){
  struct Apex*a=c->apex; char head[80];
  int h=sprintf(head,"%s %d %u . %u %zu\r\n",type,ch,no,a->sent[ch],n);
  conn_send(c,head,h); conn_send(c,payload,n); conn_send(c,"END\r\n",5); a->sent[ch]+=n; }
static void apex_xml(Conn*c,const char*type,int ch,u32 no,const char*f,...){
  char b[4096]; va_list v; va_start(v,f); int n=sprintf(b,BEEP_XML); n+=vsnprintf(b+n,sizeof b-n,f,v); va_end(v);
  if(n>=(int)sizeof b)die("apex_xml overflow");
  apex_frame(c,type,ch,no,b,n); }
static void apex_start(Conn*c){
  free(c->apex); c->apex=calloc(1,sizeof*c->apex); c->in.n=c->in.off=0;
  for(int i=0;i<APEX_CHANNELS;i++)c->apex->limit[i]=c->apex->told[i]=4096;
  apex_xml(c,"RPY",APEX_MGMT,0,"<greeting />"); }

/* ---- sign-in, in the order of its states: X_HDR1 greeting, X_AUTH SASL, X_BIND attach ---- */
static void apex_sign_in(Conn*c){ Grp*g=c->g; char u[200],o[800]; tmpl(u,sizeof u,"%u",g,c->idx); c->st=X_AUTH;
  if(!strcasecmp(g->sasl,"plain")){ u8 b[400]; int n=0; b[n++]=0; n+=sprintf((char*)b+n,"%s",u)+1; n+=sprintf((char*)b+n,"%s",g->pass); b64e(o,b,n); }
  else { snprintf(c->cnonce,sizeof c->cnonce,"n%08x%08x",(u32)rand(),(u32)c->idx); snprintf(c->cfb,sizeof c->cfb,"n=%s,r=%s",u,c->cnonce); char f[310]; int n=snprintf(f,sizeof f,"n,,%s",c->cfb); b64e(o,(u8*)f,n); }
  apex_xml(c,"MSG",APEX_MGMT,++c->apex->msgno[APEX_MGMT],"<start number='%d'><profile uri='http://iana.org/beep/SASL/%s'><![CDATA[<blob>%s</blob>]]></profile></start>",APEX_SASL,strcasecmp(g->sasl,"plain")?"SCRAM-SHA-1":"PLAIN",o); }
static void apex_attach(Conn*c){ char me[300]; tmpl(me,sizeof me,c->g->from,c->g,c->idx); c->st=X_BIND;
  apex_xml(c,"MSG",APEX_MGMT,++c->apex->msgno[APEX_MGMT],"<start number='%d'><profile uri='http://iana.org/beep/APEX'><![CDATA[<attach endpoint='%s' transID='1' />]]></profile></start>",APEX_DATA,me); }
static void apex_blob(Conn*c,const char*p,size_t n){
  if(memmem(p,n,"<error",6)){ dbg("apex: %.*s",(int)n,p); conn_close(c,"sign-in refused"); return; }
  if(memmem(p,n,"complete",8)){ apex_attach(c); return; }
  const char*b=memmem(p,n,"<blob",5); if(!b)return; b=memchr(b,'>',p+n-b); const char*e=b?memchr(b,'<',p+n-b):NULL; if(!e){ conn_close(c,"bad blob"); return; }
  char final[900]; if(scram_final(c,b+1,e-b-1,final)<0){ conn_close(c,"bad challenge"); return; }
  apex_xml(c,"MSG",APEX_SASL,c->apex->msgno[APEX_SASL]++,"<blob>%s</blob>",final); }

/* ---- data ---- */
static void apex_send_queue(Conn*c){ struct Apex*a=c->apex; Buf*q=&a->queue;
  while(q->off<q->n){ u32 l; memcpy(&l,q->p+q->off,4); if((int32_t)(a->limit[APEX_DATA]-a->sent[APEX_DATA])<(int32_t)l)return;
    apex_frame(c,"MSG",APEX_DATA,a->msgno[APEX_DATA]++,q->p+q->off+4,l); q->off+=4+l; }
  q->n=q->off=0; }
static void apex_data(Conn*c,const char*from,const char*to,long seq){ char b[3000],t[2000]; if(size_>(int)sizeof t-1)die("apex: size too big");
  body_fill(t,seq);
  int n=sprintf(b,"Content-Type: multipart/related; boundary=\"imb\"; start=\"<1.%ld.%08x@rig>\"; type=\"application/beep+xml\"\r\n\r\n"
    "--imb\r\nContent-Type: application/beep+xml\r\nContent-ID: <1.%ld.%08x@rig>\r\n\r\n<data content='cid:2.%ld.%08x@rig'><originator identity='%s' /><recipient identity='%s' /></data>\r\n"
    "--imb\r\nContent-Type: text/plain\r\nContent-ID: <2.%ld.%08x@rig>\r\n\r\n%s\r\n--imb--\r\n",seq,run,seq,run,seq,run,from,to,seq,run,t);
  u32 l=n; Buf*q=&c->apex->queue; buf_add(q,(char*)&l,4); buf_add(q,b,n); apex_send_queue(c); }
/* the messages of one user carry the numbers user, user+users, user+2*users ... in the order of their msgno */
static void apex_answered(Conn*c,u32 no,int is_ok,const char*p,size_t n){ long seq=c->idx+(long)no*c->g->users; if(seq>=N||(stt[seq]&2))return;
  int code=is_ok?250:999; if(!is_ok){ const char*k=memmem(p,n,"code=",5); if(k)code=atoi(k+6); dbg("apex: %.*s",(int)n,p); }
  stt[seq]|=2|(is_ok?8:16); answered++; codes[code<1000&&code>0?code:0]++; rlat[seq]=(u32)((now_ns()-ts[seq])/100); if(is_ok)acc2++; else rej++; }

static void apex_message(Conn*c,const char*type,int ch,u32 no,const char*p,size_t n){
  if(verbose>1)fprintf(stderr,"%c%d< %s %d %.*s\n",c->g->who,c->idx,type,ch,(int)(n>400?400:n),p);
  int is_error=type[0]=='E';
  if(ch==APEX_DATA&&type[0]=='M'){ u32 r; long seq; apex_xml(c,"RPY",ch,no,"<ok />"); if(marker(p,n,&r,&seq)&&c->g->who!='s')delivered(r,seq,c->g); else stray++; return; }
  if(ch==APEX_DATA){ apex_answered(c,no,!is_error,p,n); return; }
  if(type[0]=='M'){ apex_xml(c,"RPY",ch,no,"<ok />"); return; } /* a close of channel or session */
  if(is_error){ dbg("apex: %.*s",(int)n,p); conn_close(c,"refused"); return; }
  if(c->st==X_HDR1)apex_sign_in(c);
  else if(c->st==X_AUTH)apex_blob(c,p,n);
  else if(c->st==X_BIND){ if(memmem(p,n,"<ok",3))x_ready(c); else { dbg("apex: %.*s",(int)n,p); conn_close(c,"attach refused"); } } }

static void apex_stream(Conn*c){ Buf*b=&c->in; struct Apex*a=c->apex;
  while(c->ev.fd>=0&&b->off<b->n){ char*p=b->p+b->off; size_t left=b->n-b->off; char*nl=memchr(p,'\n',left); if(!nl)break; *nl=0;
    char type[4],more; int ch; u32 no,seqno,size; size_t h=nl+1-p;
    if(sscanf(p,"SEQ %d %u %u",&ch,&no,&size)==3){ if(ch>=0&&ch<APEX_CHANNELS)a->limit[ch]=no+size; b->off+=h; apex_send_queue(c); continue; }
    if(sscanf(p,"%3s %d %u %c %u %u",type,&ch,&no,&more,&seqno,&size)!=6||ch<0||ch>=APEX_CHANNELS||seqno!=a->got[ch]){ conn_close(c,"bad frame"); return; }
    if(left<h+size+5){ *nl='\n'; break; }
    a->got[ch]+=size; char*payload=p+h; size_t n=size;
    if(more=='*'||a->payload.n){ buf_add(&a->payload,payload,size); payload=a->payload.p; n=a->payload.n; }
    if(more!='*'){ apex_message(c,type,ch,no,payload,n); a->payload.n=0; }
    b->off+=h+size+5;
    if(c->ev.fd>=0&&(int32_t)(a->told[ch]-a->got[ch])<APEX_WINDOW/2){ a->told[ch]=a->got[ch]+APEX_WINDOW; conn_printf(c,"SEQ %d %u %d\r\n",ch,a->got[ch],APEX_WINDOW); } }
  if(b->off==b->n)b->n=b->off=0; else if(b->off>32768){ memmove(b->p,b->p+b->off,b->n-b->off); b->n-=b->off; b->off=0; } }
